"""smallcnn: from a folder of images and a device budget to a small CNN running in real time on a CPU."""
