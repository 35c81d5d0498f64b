"""Rollout plans for the digit models, as people write them."""

FIRST = """
apiVersion: hanse.dev/v1alpha1
kind: Rollout
spec:
  stages:
    - name: pilot
      regions: [eu-north]
      steps:
        - setWeight: 100
        - analysis: {templates: [sound], minSamples: 40}
  templates:
    sound:
      alpha: 0.05
      metrics:
        - {name: error-rate, test: one-arm, event: error, slo: 0.05, provenBelow: 0.05}
"""

HALF = """
apiVersion: hanse.dev/v1alpha1
kind: Rollout
spec:
  stages:
    - name: pilot
      regions: [eu-north]
      steps:
        - setWeight: 50
        - pause: {duration: 1h}
        - analysis: {templates: [sound], minSamples: 40}
        - setWeight: 100
  templates:
    sound:
      alpha: 0.05
      metrics:
        - {name: error-rate, test: ratio, event: error, margin: 1.25, provenBelow: none}
"""

EVERYWHERE = FIRST.replace("[eu-north]", "[eu-north, us-east, ap-south]")

CAREFUL = """
apiVersion: hanse.dev/v1alpha1
kind: Rollout
spec:
  stages:
    - name: pilot
      regions: [eu-north]
      steps: &steps
        - shadow: {sample: 100%, duration: 1s, minSamples: 20}
        - setWeight: {weight: 20, shadow: 100%}
        - analysis: {templates: [accuracy], minSamples: 40}
        - setWeight: 100
        - pause: {duration: 1s, minSamples: 20}
    - name: wave
      regions: [us-east, ap-south]
      requires: {stage: pilot, healthy: all}
      steps: *steps
  templates:
    accuracy:
      alpha: 0.05
      metrics:
        - {name: accuracy, test: paired, event: wrong, margin: 1.0, provenBelow: 3.0}
  background: {templates: [accuracy]}
  propagation: {onLocalRollback: hold, quarantineQuorum: 2}
"""
