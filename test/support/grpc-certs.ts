// Made for these tests, self-signed, good until 2120, and worth nothing to anybody else.

/** For `localhost` and 127.0.0.1. */
export const local: { readonly key: string; readonly certificate: string } = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0N4nVoeMH3C+xAT7
47u5l4axzdsmT+1Mev9lfqWpH1qhRANCAASyBD3bU0OaDFkGqxzNqBLpbjbizQsk
gWMJ3VXuY65Ykd4azXGBXfb9dyXlhHc0kPNQzHp3csLu7ZYMb5Wap3PV
-----END PRIVATE KEY-----
`,
  certificate: `-----BEGIN CERTIFICATE-----
MIIBWzCCAQGgAwIBAgIUazLLJYOPhhLS0IJyoiaPIbkyx5EwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAx
MDAwMDAwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASyBD3bU0OaDFkGqxzNqBLpbjbizQskgWMJ3VXuY65Ykd4azXGBXfb9
dyXlhHc0kPNQzHp3csLu7ZYMb5Wap3PVoy8wLTAaBgNVHREEEzARgglsb2NhbGhv
c3SHBH8AAAEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA3sFU
anoo3riXhHcMx7bo5UamTVkfY0gKw+8Ls1Ch1ysCICNT2/mw5UUXG1JEKKbpJ+Nl
vtdsIay/oPcCRSF58RQq
-----END CERTIFICATE-----
`,
};

/** For `other.example`, which is not where the tests listen. */
export const elsewhere: { readonly key: string; readonly certificate: string } = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOZQaCE/9w7RQsaiw
xoOwIxRN9g0VjwWYPX5Nn8mL9s6hRANCAAQqAncF0k/10G8FgWoVZbcjdT5fS9M8
+CuFkWaM5lX6Xg4LcYAbJ+q2Wa7hZfrlla0dt8Ix/H84NDHaFBTLEyy3
-----END PRIVATE KEY-----
`,
  certificate: `-----BEGIN CERTIFICATE-----
MIIBYTCCAQegAwIBAgIUJyEXEece1vKZ+h2lHWvN2j3pJvMwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNb3RoZXIuZXhhbXBsZTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIw
MDEwMTAwMDAwMFowGDEWMBQGA1UEAwwNb3RoZXIuZXhhbXBsZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABCoCdwXST/XQbwWBahVltyN1Pl9L0zz4K4WRZozmVfpe
DgtxgBsn6rZZruFl+uWVrR23wjH8fzg0MdoUFMsTLLejLTArMBgGA1UdEQQRMA+C
DW90aGVyLmV4YW1wbGUwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBF
AiByzvrhaLgTyjIIu4UyiCABFONw85dk9zOOf8R6+ZcXpwIhAOEewdc9p2tfUUM5
lETIJfW5o+i3kZNP2GD8eRXbUH+c
-----END CERTIFICATE-----
`,
};
