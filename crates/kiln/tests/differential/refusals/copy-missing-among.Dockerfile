FROM scratch
COPY f not-here /b/
