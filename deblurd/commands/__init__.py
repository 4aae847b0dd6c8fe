"""What `deblurd` can be told to do, a module for each group of commands: their words and what they print."""
