"""Where each tile lies: pairwise registration of raw tiles, and one solve for all of them."""
