module github.com/graphile-worker-native/libgraphile_worker/bindings/go

go 1.19
