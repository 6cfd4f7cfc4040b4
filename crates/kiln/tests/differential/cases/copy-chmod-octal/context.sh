echo f >f; mkdir -p d/e; echo g >d/e/g; ln -s e d/l
