"""Lists of names and of words beside names, one CSV file each."""
