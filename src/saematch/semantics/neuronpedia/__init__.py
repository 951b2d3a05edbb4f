"""Descriptions of features downloaded from Neuronpedia."""
