FROM scratch
EXPOSE 80/sea
