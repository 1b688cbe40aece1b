{{- define "carillon.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "carillon.selector" -}}
app.kubernetes.io/name: carillon
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "carillon.labels" -}}
app.kubernetes.io/name: carillon
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "carillon.image" -}}
{{- $repository := required "image.repository is empty. Say where your registry holds the image: --set image.repository=registry.example.com/carillon" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* The settings of a node that are no secrets: those of the chart, then `settings`, which may not contradict them. */ -}}
{{- define "carillon.settings" -}}
{{- $own := dict
    "CARILLON__HTTP__LISTEN" "0.0.0.0:8080"
    "CARILLON__INTERNAL__LISTEN" "0.0.0.0:9090"
    "CARILLON__REDIS__URL" (required "redis.url is empty. Say where Redis is: --set redis.url=redis://redis:6379" .Values.redis.url)
    "CARILLON__DRAIN__WINDOW_SECONDS" (toString .Values.drain.windowSeconds)
    "CARILLON__DRAIN__GRACE_SECONDS" (toString .Values.drain.graceSeconds) -}}
{{- range $name, $value := .Values.settings -}}
{{- if hasKey $own $name -}}
{{- fail (printf "settings.%s is set by the chart: use redis.url and drain.*; the ports are 8080 and 9090" $name) -}}
{{- end -}}
{{- /* null takes a setting of values.yaml away; large numbers are not written as 1e+06. */ -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $own $name (toString (kindIs "float64" $value | ternary (int64 $value) $value)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{- /* Settings that name a file, and the keys of the Secret that these files are. */ -}}
{{- define "carillon.files" -}}
{{- $files := dict -}}
{{- range $name, $key := .Values.secret.files -}}
{{- if hasKey $.Values.settings $name -}}
{{- fail (printf "%s is in settings and in secret.files: keep one" $name) -}}
{{- end -}}
{{- if $key -}}
{{- $_ := set $files $name $key -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}
