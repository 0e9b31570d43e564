"""Read tasks from files, hub data sets and folders of images."""
