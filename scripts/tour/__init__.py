"""What the demo and the tests show: real models, rendered text whose labels are known."""
