FROM scratch
COPY --link --chown=app f /f
