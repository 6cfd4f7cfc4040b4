FROM scratch
COPY not-here /b
