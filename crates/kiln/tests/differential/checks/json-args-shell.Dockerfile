FROM scratch
SHELL ["/bin/bash", "-c"]
CMD fine here
