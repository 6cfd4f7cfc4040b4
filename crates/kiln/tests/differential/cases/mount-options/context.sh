echo comma >a,b; printf top >f
