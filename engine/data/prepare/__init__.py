"""From a person's files to examples on disk: in pieces, on all cores, kept between runs."""
