printf top-secret >f
