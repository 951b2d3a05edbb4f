"""Settings of the small described run that several tests start from."""

from saematch.configs import DescribeConfig

SMALL = DescribeConfig(corpora=("web", "code"), documents=6, tokens=40, batch_tokens=80)
