"""What a frozen representation knows: linear probes, zero-shot by statements, retrieval, each beside controls.

In:  a model folder; PTB-XL as published, or site folders. Out: one document. Called by `fedecg probe` and docs.

    families    codes -> labels of PTB-XL's four families
    records     a path -> sites -> embeddings
    macro       labels and scores -> macro AUC, federated and pooled, with bounds and intervals
    probes      embeddings -> logistic regressions from sums
    zero_shot   embeddings and a bank -> AUC of statements, retrieval
    document    models -> one document
    tables      the document as text
    commands    the command line
"""
