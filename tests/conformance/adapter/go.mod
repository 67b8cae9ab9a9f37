module adapter

go 1.19

require github.com/graphile-worker-native/libgraphile_worker/bindings/go v0.0.0

replace github.com/graphile-worker-native/libgraphile_worker/bindings/go => ../../../bindings/go
