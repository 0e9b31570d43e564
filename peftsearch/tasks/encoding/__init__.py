"""Encode tasks: texts into token ids, images into pixels, and both into batches."""
