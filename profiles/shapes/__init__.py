"""What a model is made of: config.json, tensor names and shapes, by file or by formula."""
