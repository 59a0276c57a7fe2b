package kube

import "strings"

// The types of events.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

// KubeSlice's events, of its workers and of its controller: the same thing has
// the same name here.
const normalEvents = `
	CertificatesRenewNow ClusterCNISubnetUpdateSuccessful ClusterDashboardCredsUpdated ClusterDeregistered ClusterDeregistrationInProgress
	ClusterHealthStatusUpdated ClusterHealthy ClusterInstallationInProgress ClusterNodeIpAutoDetected ClusterNodeIpUpdateSuccessful
	ClusterProviderUpdateInfoSuccesful DefaultRoleBindingCreated DefaultRoleBindingUpdated DefaultSliceQoSConfigCreated DeleteNamespaceInfoToHub
	FSMNewGWSpawned FSMRoutingTableUpdated GatewayCertificateRecyclingTriggered GatewayCertificateUpdated GatewayRecyclingSuccessful
	IngressGWPodReconciledSuccessfully NamespaceCreated NamespaceUpdated NetPolAdded ReadOnlyRoleCreated ReadOnlyRoleUpdated ReadWriteRoleCreated
	ReadWriteRoleUpdated ServiceAccountCreated ServiceAccountSecretCreated ServiceExportInitialStatusUpdated SliceCreated SliceGWCreated
	SliceGWRebalancingSuccess SliceGWUpdated SliceGatewayJobCreated SliceServiceImportUpdatePorts SliceServiceImportUpdatePortsFailed
	SliceServiceImportUpdated SliceUpdated SyncServiceExportStatusSuccessfully TriggeredFSMToRecycleGateways UpdatedNamespaceInfoToHub
	VPNKeyRotationConfigCreated VPNKeyRotationConfigUpdated VPNKeyRotationStart WorkerClusterRoleCreated WorkerClusterRoleUpdated
	WorkerServiceImportCreated WorkerServiceImportRecreated WorkerServiceImportUpdated WorkerSliceConfigCreated WorkerSliceConfigRecreated
	WorkerSliceConfigUpdated WorkerSliceGatewayCreated WorkerSliceGatewayRecreated WorkerSliceHealthUpdated
`

const warningEvents = `
	CertificateJobCreationFailed CertificateJobFailed ClusterCNISubnetUpdateFailed ClusterDashboardCredsUpdateFailed ClusterDeleted ClusterDeletionFailed
	ClusterDeregisterFailed ClusterDeregisterTimeout ClusterHealthStatusUpdateFailed ClusterInstallationFailed ClusterInstallationPending
	ClusterNodeIpAutoDetectionFailed ClusterNodeIpUpdateFailed ClusterProviderUpdateInfoFailed ClusterUnhealthy DefaultRoleBindingCreationFailed
	DefaultRoleBindingDeleted DefaultRoleBindingDeletionFailed DefaultRoleBindingUpdateFailed DeleteNamespaceInfoToHubFailed DeregistrationJobFailed
	FSMDeleteOldGW FSMDeleteOldGWFailed FSMNewGWSpawnFailed FSMRoutingTableUpdateFailed GatewayRecyclingFailed IllegalVPNKeyRotationConfigDelete
	InactiveRoleBindingDeleted InactiveRoleBindingDeletionFailed InactiveServiceAccountDeleted InactiveServiceAccountDeletionFailed
	IngressGWPodReconcileFailed NamespaceCreationFailed NamespaceDeleted NamespaceDeletionFailed NamespaceUpdateFailed NetPolScopeWidenedIPBlock
	NetPolScopeWidenedNamespace NetPolViolation ProjectDeleted ProjectDeletionFailed ReadOnlyRoleCreationFailed ReadOnlyRoleUpdateFailed
	ReadWriteRoleCreationFailed ReadWriteRoleUpdateFailed SecretDeleted SecretDeletionFailed ServiceAccountCreationFailed ServiceAccountDeleted
	ServiceAccountDeletionFailed ServiceAccountSecretCreationFailed ServiceExportConfigDeleted ServiceExportConfigDeletionFailed
	ServiceExportDeleteFailed ServiceExportDeleted ServiceExportSliceFetchFailed ServiceExportStatusPending ServiceExportUpdatePortsFailed
	SliceAppPodsListUpdateFailed SliceConfigDeleted SliceConfigDeletionFailed SliceCreationFailed SliceDeleted SliceDeletionFailed
	SliceEgressInstallFailed SliceGWConnectionContextFailed SliceGWCreateFailed SliceGWDeleteFailed SliceGWDeleted SliceGWNodePortUpdateFailed
	SliceGWPodReconcileFailed SliceGWRebalancingFailed SliceGWRemotePodSyncFailed SliceGWSecretDeletionFailed SliceGWServiceCreationFailed
	SliceGWUpdateFailed SliceGatewayJobCreationFailed SliceIngressInstallFailed SliceNetopQoSSyncFailed SliceQoSConfigDeleted
	SliceQoSConfigDeletionFailed SliceQoSProfileWithNetOpsSync SliceRouterConnectionContextFailed SliceRouterDeploymentFailed SliceRouterServiceFailed
	SliceServiceExportInitialStatusUpdateFailed SliceServiceImportDeleteFailed SliceServiceImportDeleted SliceServiceImportUpdateAvailableEndpointsFailed
	SliceServiceImportUpdateFailed SliceUpdateFailed SyncServiceExportStatusFailed UpdateNamespaceInfoToHubFailed VPNKeyRotationConfigCreationFailed
	WorkerClusterRoleCreationFailed WorkerClusterRoleUpdateFailed WorkerServiceImportCreateFailed WorkerServiceImportCreationFailed
	WorkerServiceImportDeleted WorkerServiceImportDeletedForcefully WorkerServiceImportDeletionFailed WorkerServiceImportRecreationFailed
	WorkerServiceImportUpdateFailed WorkerSliceConfigCreationFailed WorkerSliceConfigDeleted WorkerSliceConfigDeletedForcefully
	WorkerSliceConfigDeletionFailed WorkerSliceConfigRecreationFailed WorkerSliceConfigUpdateFailed WorkerSliceGatewayCreationFailed
	WorkerSliceGatewayDeleted WorkerSliceGatewayDeletedForcefully WorkerSliceGatewayDeletionFailed WorkerSliceGatewayRecreationFailed
	WorkerSliceHealthUpdateFailed
`

// ownEvents are those that KubeSlice has no name for. All warn.
const ownEvents = "HubStale HubMassDeletion HubObjectRefused HubWriteDenied"

// eventReasons are those that differ from the event's name.
var eventReasons = map[string]string{
	"ClusterHealthy":                "ComponentStatusChange",
	"ClusterUnhealthy":              "ComponentStatusChange",
	"NetPolScopeWidenedIPBlock":     "Scope widened with reason - IPBlock violation",
	"NetPolScopeWidenedNamespace":   "Scope widened with reason - Namespace violation",
	"NetPolViolation":               "PolicyViolation",
	"SliceQoSProfileWithNetOpsSync": "SliceQoSProfileWithNetOpsSyncFailed",
}

var eventTypes = func() map[string]string {
	m := make(map[string]string)
	for _, n := range strings.Fields(warningEvents + ownEvents) {
		m[n] = EventWarning
	}
	for _, n := range strings.Fields(normalEvents) {
		m[n] = EventNormal
	}
	return m
}()

// KnownEvent reports whether an event's name is one of KubeSlice's or ours.
func KnownEvent(name string) bool { return eventTypes[name] != "" }

// EventType returns Normal or Warning; an unknown event warns.
func EventType(name string) string {
	if t := eventTypes[name]; t != "" {
		return t
	}
	return EventWarning
}

// EventReason returns the reason under which an event is told.
func EventReason(name string) string {
	if r := eventReasons[name]; r != "" {
		return r
	}
	return name
}
