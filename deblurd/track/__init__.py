"""When and where: the stage's track, the frames' clock, motion vectors, and which frames become tiles."""
