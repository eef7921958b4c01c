"""The ground: files and folders, images, threads, what is printed. Nothing here knows of the method."""
