{{- define "retentiond.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "retentiond.fullname" -}}
{{- $name := include "retentiond.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The label "job" of everything that is scraped; alerts look for "retentiond" in it. */}}
{{- define "retentiond.job" -}}
{{- $full := include "retentiond.fullname" . -}}
{{- if contains "retentiond" $full -}}{{ $full }}{{- else -}}{{ printf "%s-retentiond" $full }}{{- end -}}
{{- end -}}

{{- define "retentiond.selector" -}}
app.kubernetes.io/name: {{ include "retentiond.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "retentiond.labels" -}}
{{ include "retentiond.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "retentiond.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "retentiond.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Stops what would lose its state on the first move of a partition. */}}
{{- define "retentiond.check" -}}
{{- if and (gt (int .Values.replicas) 1) .Values.persistence.enabled (not .Values.persistence.existingClaim) -}}
{{- fail "replicas is more than 1, and each would have a volume of its own: a partition that moves takes its state from a store that all replicas reach. Name a ReadWriteMany claim in persistence.existingClaim, or set persistence.enabled to false and a bucket as checkpoint.url in config." -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) (not (regexMatch "(?m)^\\s*url\\s*=\\s*\"(s3|gs|az)://" .Values.config)) -}}
{{- fail "persistence is off, and config names no bucket (s3://, gs://, az://) as checkpoint.url: state would end with the pod." -}}
{{- end -}}
{{- end -}}
