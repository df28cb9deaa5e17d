"""What every room stands on and none of them is about: files, Ray, MLflow's address, tables, images, pages."""
