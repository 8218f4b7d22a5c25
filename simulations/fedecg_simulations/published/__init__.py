"""Public data sets as they are published: what there is, whether a folder holds it whole, and how it is fetched.

catalogue        name, version, licence, place and size of each set; who may have it
checksums        lists of checksums (PhysioNet's SHA256SUMS.txt, Zenodo's record), and the files that they name
layouts          what a folder of each set must hold, and what its own tables say is missing
checking         `fedecg-simulate data check`
transfer         one file over HTTP: resumed, repeated, compared with its checksum
fetching         `fedecg-simulate data fetch`
commands         the command line of the two
"""
