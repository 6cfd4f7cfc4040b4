FROM scratch
COPY <<EOF /f
line
