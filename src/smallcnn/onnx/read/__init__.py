"""Reading any small CNN's ONNX file."""
