"""`python examples/torch/digits.py`: a convolutional network on scikit-learn's digits, trained with fastlr.torch."""

import torch
from sklearn.datasets import load_digits

import fastlr.torch


def run(epochs=15):
    """The accuracy on the last 300 digits, which others wrote than those before."""
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(digits.target)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )
    data = torch.utils.data.TensorDataset(x[:-300], y[:-300])
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    opt = fastlr.torch.AdamW(model.parameters(), lr=1e-2, clip_norm=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=epochs * len(loader) + 1)
    for _ in range(epochs):
        for images, labels in loader:
            opt.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            opt.step()
            scheduler.step()
    with torch.no_grad():
        return (model(x[-300:]).argmax(1) == y[-300:]).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy {run():.3f}")
