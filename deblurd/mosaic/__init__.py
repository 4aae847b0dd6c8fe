"""From placed tiles to a whole-slide OME-Zarr that grows while the stage moves."""
