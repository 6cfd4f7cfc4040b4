mkfifo pipe; echo f >f; ln f g; ln -s /etc/passwd abs; ln -s ../up up; mkdir d; ln -s ../f d/l
