"""Commands about configuration: written from a look at files, checked, tried on a file, published."""
