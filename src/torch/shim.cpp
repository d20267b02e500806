// What libtorch has and tch hides.
