"""Hand a trained model on: as ONNX with its preprocessing, with a card, and with predictions for new rows."""
