FROM scratch
ADD --checksum=what http://127.0.0.1:1/f /f
