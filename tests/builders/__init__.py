"""Systems, modules and judges that several tests share."""
