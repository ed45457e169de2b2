"""Real implementations as candidates (`--candidate real:NAME`), each seen through an adapter."""
