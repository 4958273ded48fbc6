module drpcpeer

go 1.21

require storj.io/drpc v0.0.34

require github.com/zeebo/errs v1.2.2 // indirect
