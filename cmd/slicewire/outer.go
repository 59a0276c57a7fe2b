package main

import "slicewire/gateway"

// outerTOS is the node file's outerTOS as gateways have it.
func outerTOS(name string) gateway.OuterTOS {
	switch name {
	case "all":
		return gateway.TOSAll
	case "ecn":
		return gateway.TOSECN
	}
	return gateway.TOSOff
}
