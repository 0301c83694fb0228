"""The HTTP service behind `edgekd serve`; the only importer of Starlette and Uvicorn."""
