# The files of the engines import libraries that need not be installed; doctests would import all of them.
collect_ignore_glob = ["engines/*_.py"]
