package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// kepSentences are the sentences of KEP-1645 (README.md and, after the line, its
// DNS specification, specification.md) that say of an implementation what must,
// should, will, or will not be, in their order and in short, with the tests of
// each. "TestMultiClusterServices/x" is its part x. Left out are sentences to
// users, on examples, on kube-proxy, and on what others are to decide.
var kepSentences = []struct{ sentence, tests string }{
	{"namespace sameness applies: namespaces of a name are the same", "TestWhichServicesAreImported TestMultiClusterServices"},
	{"the cluster name must be a valid RFC 1123 DNS label", "TestRules"},
	{"the cluster name and id should be consistent for the life of the cluster; another name is another member", "TestACertificateForAnotherNodeStopsTheDaemon"},
	{"the cluster id must be the cluster name, or that and one more label", "TestMultiClusterServices/names"},
	{"ServiceExports must be created in each cluster that the Service is in; a Service without one there is not exported", "TestWhatIsExported"},
	{"a ServiceExport has the Service of its name and namespace visible to other clusters", "TestMultiClusterServices"},
	{"importing clusters will have one ServiceImport for each service, by its namespaced name", "TestWhichServicesAreImported TestMultiClusterServices"},
	{"exports of one name are one service, with the endpoints of all clusters", "TestMultiClusterServices TestTheOldestExportWins"},
	{"services will not be visible to other clusters by default", "TestWhatIsExported"},
	{"Valid will be false if the service is found to be unexportable: ExternalName, not found", "TestWhatIsExported TestAnExportAndItsStatus"},
	{"the message of Conflict should say which fields, who won, and why", "TestTheOldestExportWins TestMultiClusterServices"},
	{"deleting a ServiceExport will stop exporting the Service", "TestMultiClusterServices"},
	{"a service will be imported only by clusters in which its namespace exists, and by all of these", "TestWhichServicesAreImported"},
	{"all exporting clusters will also import it", "TestMultiClusterServices"},
	{"users who are no cluster administrators should not be allowed to create or modify ServiceImports", "TestMultiClusterServices/rights"},
	{"the controller should be solely responsible for the lifecycle of a ServiceImport", "TestAnImportComesAndGoes TestWhatIsRemoved"},
	{"a ServiceImport is kept so long as the service is exported and its namespace exists", "TestWhichServicesAreImported TestAnExportWithoutBackendsIsTold"},
	{"if all ServiceExports are deleted, each ServiceImport will also be deleted", "TestMultiClusterServices TestAnImportComesAndGoes"},
	{"a port's name must be a DNS label, all ports must have unique names, and these must match those of the endpoints' ports", "TestWhatIsExported TestADerivedService"},
	{"the IP of the ServiceImport can be used to access the service from within the cluster", "TestMultiClusterServices/address"},
	{"ClusterIP: endpoints of all clusters are behind the clusterset IP, the type is ClusterSetIP", "TestMultiClusterServices"},
	{"headless: the type is Headless, without a VIP; they must be consumed by DNS", "TestMultiClusterServices TestNamesOfAStatefulSet"},
	{"NodePort and LoadBalancer will be of the type ClusterSetIP", "TestWhatIsExported"},
	{"ExternalName: a condition will be set on the export", "TestWhatIsExported"},
	{"the clusterset IP is expected to be consistent for the life of a ServiceImport", "TestWhatIsGoneForAMomentStays"},
	{"requests to the clusterset IP will route to the endpoints of all exports", "TestMultiClusterServices"},
	{"consumers must use clusterset.local; there will be no change to cluster.local, even for a service of the same name", "TestMultiClusterServices"},
	{"by definition, each IP must only have one PTR record", "TestMultiClusterServices/address"},
	{"no records that target all backends of one cluster", "TestMultiClusterServices/names"},
	{"clusterid must uniquely identify a cluster", "TestACertificateForAnotherNodeStopsTheDaemon"},
	{"EndpointSlices of imports, if there are any, must have the labels of the API and one source cluster each: there are none", "TestMultiClusterServices/rights"},
	{"stale endpoints of a cluster that cannot be reached are removed (recommended)", "TestMultiClusterServices/unreached TestServicesWithoutLostNodes"},
	{"properties that concern consumption as a whole must be consistent; a conflict will be set on all exports of the service", "TestMultiClusterServices"},
	{"the conflict will be resolved by creationTimestamp, from oldest to newest", "TestTheOldestExportWins TestTermsOfAnExport"},
	{"the service will expose the union of its exports' ports", "TestTheOldestExportWins"},
	{"ports must have no duplicated names, and no two the same protocol and number; implementations should merge by name, then by these", "TestTheOldestExportWins TestADerivedService"},
	{"headlessness and session affinity will be decided by the conflict resolution policy", "TestTheOldestExportWins"},

	{"hostname: implementations must prefer the endpoint's own to the pod's name", "TestWhatIsExported"},
	{"the zone must be clusterset.local", "TestMultiClusterServices/names"},
	{"dns-version is a TXT record with 1.0.0", "TestMultiClusterServices/names"},
	{"ClusterSetIP: an A record, and an AAAA record of an IPv6 address, must exist", "TestMultiClusterServices/address TestStandInsAreAnsweredInsteadOfTheSlicesAddresses"},
	{"ClusterSetIP: an SRV record for each named port must exist, which leads to the service", "TestMultiClusterServices/names TestStandInsAreAnsweredInsteadOfTheSlicesAddresses"},
	{"unnamed ports do not have an SRV record", "TestStandInsAreAnsweredInsteadOfTheSlicesAddresses"},
	{"ClusterSetIP: a PTR record must exist unless the address has one, as of the Service that stands for an import", "TestMultiClusterServices/address"},
	{"ClusterSetIP services should not have a record of one cluster's backends", "TestMultiClusterServices/names"},
	{"headless: an A record must exist for each ready endpoint", "TestMultiClusterServices"},
	{"headless: there must be an A record for each hostname and cluster id", "TestMultiClusterServices TestNamesOfAStatefulSet"},
	{"headless: the same must be for AAAA records", "TestStandInsAreAnsweredInsteadOfTheSlicesAddresses"},
	{"headless: without ready endpoints, the answer should be NXDOMAIN", "TestStandInsAreAnsweredInsteadOfTheSlicesAddresses"},
	{"headless: an SRV record for each endpoint and named port must exist", "TestMultiClusterServices/names"},
	{"headless: a PTR record must exist unless the address has one", "TestTheRecordsOfServices TestMultiClusterServices/address"},
	{"headless services should not have a record of one cluster's backends", "TestMultiClusterServices/names"},
}

// Every test that the table names is there.
func TestEverySentenceOfTheKEPHasATest(t *testing.T) {
	is := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	part := regexp.MustCompile(`t\.Run\("(\w+)"`)
	there := make(map[string]bool)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range is.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		if filepath.Base(path) == "mcs_test.go" {
			for _, m := range part.FindAllSubmatch(text, -1) {
				there["TestMultiClusterServices/"+string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range kepSentences {
		for test := range strings.FieldsSeq(s.tests) {
			if !there[test] {
				t.Errorf("%s: there is no %s", s.sentence, test)
			}
		}
		if s.tests == "" {
			t.Errorf("%s: no test", s.sentence)
		}
	}
}
