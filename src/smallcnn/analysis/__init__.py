"""Analysis of a trained network: errors by class and image, calibration, accuracy by input size."""
