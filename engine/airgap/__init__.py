"""Setting finetui up on a machine without a network: what it takes along, and what it lacks there."""
