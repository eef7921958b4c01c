"""Whether mixing raises accuracy: grids of runs on real photographs, and the page that shows them."""
