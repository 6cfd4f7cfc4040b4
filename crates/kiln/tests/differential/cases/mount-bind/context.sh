mkdir sub; echo f >f; echo g >sub/g
