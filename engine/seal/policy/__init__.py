"""What a sealed process may reach: the files, devices and variables that its work needs, and no others."""
