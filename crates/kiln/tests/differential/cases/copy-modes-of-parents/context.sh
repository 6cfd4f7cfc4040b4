echo f >f; mkdir -m 750 d; echo g >d/g
