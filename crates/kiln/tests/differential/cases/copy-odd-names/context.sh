echo 1 >'a b'; echo 2 >'c$d'; echo 3 >'[x]'
